"""A page with a "call me back" form that shows how the call goes. README.md says how to run and how to copy it."""
