"""How reports and tables write a number: a proper minus sign, and no sign before what rounds to zero."""

MINUS = "−"


def decimal(value: float, digits: int) -> str:
    """A number; only a negative one has a sign: "−1.3", "1.3"."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """A difference, with its sign either way: "−1.3", "+1.3"."""
    return ("+" if round(value, digits) > 0 else "") + decimal(value, digits)
