"""The gift shop's invoice lines, from whichever copy of Online Retail (II) is at hand."""

from foretell import Source

invoices = Source(
    name="invoices",
    files="*",
    role="order_line",
    # Excel and most CSV copies have ISO times; CSV copies of the first data set have "12/1/2010 8:26", month first
    event_at="coalesce(try_strptime(InvoiceDate::VARCHAR, '%m/%d/%Y %H:%M')::VARCHAR, InvoiceDate::VARCHAR)",
    timezone="Europe/London",
    currency="GBP",
    identifiers={"customer": """regexp_replace("Customer ID"::VARCHAR, '[.]0$', '')"""},  # 13085.0 is 13085
    columns={
        "order_id": "Invoice",
        "amount": "Quantity * Price",
        "quantity": "Quantity",
        "product_id": "StockCode",
        "cancelled": "Invoice LIKE 'C%'",
    },
    # Lines of a known customer for a product: no postage, fees or samples (their codes do not begin with five digits),
    # no stock corrections (nothing was paid), and of cancellations and sales those whose sign says the same.
    only="""
        "Customer ID" IS NOT NULL AND Price > 0 AND regexp_matches(StockCode, '^[0-9]{5}')
        AND CASE WHEN Invoice LIKE 'C%' THEN Quantity < 0 ELSE Quantity > 0 END
        AND overlap_dup::BOOLEAN IS NOT TRUE
    """,
    aliases={"Invoice": ("InvoiceNo",), "Price": ("UnitPrice",), "Customer ID": ("CustomerID",)},
    optional=("overlap_dup",),  # a copy that holds both sheets in one may mark the lines that are in both
)
