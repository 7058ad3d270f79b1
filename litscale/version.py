"""The version, in a module of its own: beside a folder `litscale`, such as a clone, Python finds that in place of us.

The submodules of an editable installation are found there all the same.
"""

__version__ = "0.2.0"
