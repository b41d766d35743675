"""Number formatting of reports and tables: a typographic minus sign, and no sign if the value rounds to zero."""

MINUS = "−"


def decimal(value: float, digits: int) -> str:
    """Format a number with a sign only if negative: "−1.3", "1.3"."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """Format a difference with its sign: "−1.3", "+1.3"."""
    return ("+" if round(value, digits) > 0 else "") + decimal(value, digits)
