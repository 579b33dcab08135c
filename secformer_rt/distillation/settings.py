"""What a distillation is asked for; a resumed one must be asked for the same."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Weights(BaseModel):
    """What each part of the loss counts for, and where the penalty of large values begins.

    Scores are penalised below minus 2Quad's offset too: there they are on the far branch of its parabola,
    where a smaller score means more attention.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: float = Field(default=1.0, ge=0)
    attention: float = Field(default=1.0, ge=0)
    output: float = Field(default=2.0, ge=0)
    penalty: float = Field(default=0.1, ge=0)
    score_limit: float = Field(default=24.0, gt=0)
    inner_limit: float = Field(default=24.0, gt=0)


class TrainingSettings(BaseModel):
    """Length and pace of the training.

    ``batch_tokens`` counts padding; ``rate`` is the highest learning rate, reached after ``warm_up`` steps
    and falling to 0 in a line from there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=2000, ge=1)
    batch_tokens: int = Field(default=768, ge=1)
    tokens: int = Field(default=64, ge=8)
    rate: float = Field(default=3e-4, gt=0, lt=1)
    warm_up: int = Field(default=20, ge=0)
    seed: int = Field(default=0, ge=0)
    weights: Weights = Weights()

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        rising = (step + 1) / self.warm_up if self.warm_up else 1.0
        return self.rate * min(1.0, rising, (self.steps - step) / max(1, self.steps - self.warm_up))
