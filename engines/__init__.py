"""How frames and questions become captions and scores."""
