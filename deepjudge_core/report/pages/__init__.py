"""The pages for people, made from the report's JSON alone."""
