"""What the commands show: tables, bars, a build as it goes on."""
