"""Speed and memory of apps.predict."""
