"""The values that keys of the conf file take: how each is read, checked and described."""
