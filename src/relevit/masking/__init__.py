"""Foreground masks without annotation (TokenCut), their refinement and quality, and masks in everyone's own formats."""
