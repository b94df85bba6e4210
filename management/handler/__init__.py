"""What every handler stands on: operations with their permits, requests read strictly, answers and refusals."""
