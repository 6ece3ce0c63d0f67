"""What a run is: the request, its record, money, receipts, and what must not be shown of them.

Plain values; nothing here waits, writes a file or asks a provider. Imports only `errors`, `loop`, `files`
and `addresses`; everything else may import it. Read first: `run.py`, then `request.py`.
"""
