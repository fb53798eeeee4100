"""Where a network runs: devices, the processes that train one fold together, and inference."""
