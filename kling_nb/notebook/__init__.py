"""The notebook faces: magics and live cards."""
