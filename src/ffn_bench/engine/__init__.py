"""What trains runs."""
