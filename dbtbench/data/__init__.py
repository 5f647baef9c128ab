"""What a DBT data set is, how real ones become one, and how one leaves."""
