"""The report: one HTML file about one film, that opens with no internet."""
