"""Stands in front of the package of this name, which builds 38 grammars at its import.

That costs three seconds of every process that imports nbformat. jsonschema does without it: it then takes any
text for an IRI, and no schema of Jupyter's or ours asks for one.
"""

raise ImportError("left out of the tests")
