"""
Provides pyryrelay version information.
"""

# This file is auto-generated! Do not edit!
# Use `python -m incremental.update pyryrelay` to change this file.

from incremental import Version

__version__ = Version("pyryrelay", 26, 11, 0)
__all__ = ["__version__"]
