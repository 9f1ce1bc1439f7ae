"""A schedule's nights: rebuilt, trained on, judged and promoted; and training as a job of Ray."""
