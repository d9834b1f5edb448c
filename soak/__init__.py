"""The long form of every scenario that the services must survive: see __main__."""
