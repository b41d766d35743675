"""From raw archives to encoded rows."""
