"""The status page: one page without dependencies on `/`, and what it shows as JSON on `/status.json` (`shape.py`).

It tells what this one process knows, asks nobody else, bears no control, and shows no key.
"""
