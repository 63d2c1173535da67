"""The chapters of an audit's page."""
