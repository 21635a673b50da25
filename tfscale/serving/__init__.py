"""A served model: requests over HTTP answered by exported models. See __main__.py for the command."""
