"""Figures and tables for the report. Never imports torch."""
