"""Where a network runs: devices, the processes that train one fold together, and inference.

A change that gives other results raises the VERSION of training and of prediction.
"""
