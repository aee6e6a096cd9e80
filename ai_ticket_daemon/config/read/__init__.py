"""From the conf file, the environment and the credentials to a frozen configuration."""
