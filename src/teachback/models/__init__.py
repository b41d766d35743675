"""Loading encoders, choosing and cutting their layers, and the heads on them."""
