"""Finished runs put together: tables with intervals, differences, pages."""
