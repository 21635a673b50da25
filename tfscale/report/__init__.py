"""An evaluation report: how good a trained run is, where it errs, and how sure that is, on one page and as JSON."""
