"""What becomes of real parties when something breaks, and when they serve for long."""
