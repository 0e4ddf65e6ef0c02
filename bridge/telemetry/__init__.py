"""What operators see: each internal event logged and counted (`events.py`), health, metrics over HTTP."""
