"""Groups of options, each a base of the settings. PURE."""
