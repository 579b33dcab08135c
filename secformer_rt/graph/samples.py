"""Texts to calibrate with: written for this purpose, varied on purpose, and no one's private data."""

from __future__ import annotations

_LONG = (
    "The ferry left the island a little after six, when the light was still grey and the gulls had not yet "
    "decided whether the day was worth getting up for. On deck stood a woman with a cello, two carpenters "
    "arguing about the price of oak, and a boy who had lost his left shoe and did not seem to mind. Nobody "
    "spoke to the captain. He had sailed this route for thirty-one years and had never once been late, "
    "except on the morning his daughter was born, when he had turned the ship around in the middle of the "
    "strait, and all of the passengers had applauded.",
    "This agreement is made between the tenant and the landlord for a term of twelve months. The rent is due "
    "on the first working day of each month; a payment received after the fifth day shall be subject to a "
    "charge of two per cent. The tenant may not sublet the flat, keep animals other than cats, or alter the "
    "walls without written consent, which shall not be unreasonably withheld. Either party may end the "
    "agreement by giving notice of no less than ninety days. Disputes shall first be brought before a "
    "mediator chosen by both, and only then before the court of the district in which the flat is situated.",
    "Patient, 54, came in with a dull pain in the chest that had lasted for three days and became worse when "
    "climbing stairs. No fever, no cough. Blood pressure 142/91, pulse 88 and regular, saturation 97 %. The "
    "ECG showed no change against the one taken in March; troponin was below the limit at 0 and at 3 hours. "
    "He smokes ten cigarettes a day and his father had a heart attack at the age of fifty-nine. We began "
    "aspirin and a statin, advised him strongly to stop smoking, and booked a stress test for next Tuesday. "
    "He was told to come back at once should the pain occur at rest.",
    "Start with the onions. Slice them thinly, melt a good piece of butter over a low flame, and give them "
    "forty minutes; whoever tells you that ten are enough has never made this soup. When they are the colour "
    "of an old violin, add a spoon of flour, a glass of dry white wine and a litre of stock. Salt, pepper, a "
    "bay leaf, some thyme. Let it simmer while you toast the bread and grate the cheese. Fill the bowls, lay "
    "the bread on top, cover it generously, and put everything under the grill until it bubbles and browns "
    "at the edges. Wait before eating. You will not wait, of course; nobody does.",
)

_ORDINARY = (
    "A man is playing a guitar on the stage.",
    "Where can I renew my passport, and how long does it take?",
    "The film was far too long, badly acted, and I loved every minute of it.",
    "Worst purchase I have ever made. Broke after two days, and support never answered.",
    "Researchers found that bees can count to four and understand the idea of zero.",
    "Interest rates rose for the third time this year, and shares fell in early trading.",
    "She said that he said that they said that nobody had said anything.",
    "If it rains tomorrow we shall stay at home, unless, of course, it does not.",
    "The old man the boat.",
    "Colourless green ideas sleep furiously.",
    "I can't believe it's not been fixed yet; it's the fourth time I've asked!",
    "What is the capital of Mongolia?",
    "My account number has changed, please update the transfer before Friday.",
    "To be, or not to be, that is the question.",
)

_ODD = (
    "a",
    "No.",
    "?",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "... --- ...",
    "The the the the the the the the the the the the the the the the the the the the the the the the",
    "buffalo " * 60,
    "3.14159265358979323846264338327950288419716939937510",
    "Call +44 20 7946 0958 or +1 (555) 013-4477 before 17:45 on 2024-02-29; ref. #00471-B/9.",
    "0 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765 10946 17711 28657 46368",
    "def area(r: float) -> float:\n    return 3.14 * r ** 2  # why not math.pi?\n\nprint(area(2.5))",
    "SELECT name, COUNT(*) FROM orders WHERE total >= 99.5 GROUP BY name HAVING COUNT(*) > 3;",
    '{"id": 17, "tags": ["x", "y"], "nested": {"ok": true, "value": null}}',
    "https://example.org/a/b/c?q=one+two&lang=de#section-3",
    "Pneumonoultramicroscopicsilicovolcanoconiosis and floccinaucinihilipilification",
    "qwzx jjkpt vvbnm xkcdq zzrtl wqpfg",
    "SHOUTING ALL THE WAY TO THE END OF THE STREET AND BACK AGAIN",
    "I ❤️ this 😂😂😂 so much 🎉🚀 see you 👨‍👩‍👧‍👦 soon!!! 🇳🇴",
    "Der Zug nach Görlitz fährt heute leider nur bis Königs Wusterhausen.",
    "L'été dernier, nous avons dîné près de l'église, sous un très vieux châtaignier.",
    "Вчера вечером мы долго гуляли по набережной и говорили о будущем.",
    "今日はとても良い天気なので、公園を散歩しました。",
    "我昨天在图书馆里读了一本关于海洋的书。",
    "오늘은 날씨가 좋아서 공원에서 산책을 했습니다.",
    "ذهبنا إلى السوق في الصباح واشترينا الخبز والزيتون.",
    "כל ההתחלות קשות, אבל הסוף טוב.",
    "Η θάλασσα ήταν ήρεμη και ο ουρανός γεμάτος αστέρια.",
    "मुझे सुबह की चाय बहुत पसंद है।",
    "∀x ∈ ℝ: x² ≥ 0, √2 ≈ 1.41421, ∑ᵢ aᵢ ≤ ∞, α + β ≠ γ",
)


def bundled_texts() -> list[str]:
    """Forty-odd texts from one character to about 120 words, from plain prose to what breaks tokenisers."""
    return [*_LONG, *_ORDINARY, *(text.strip() for text in _ODD)]
