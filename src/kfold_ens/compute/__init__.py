"""Devices, training one fold in several processes, and inference.

Raise VERSION of training and of prediction with any change that alters the results.
"""
