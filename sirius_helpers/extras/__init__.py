"""What one T4 never needs, each imported by its own command, or where a setting asks for it."""
