"""Room 4: joins the rooms; owns the loop, the clock, the log and everything that touches the outside."""
