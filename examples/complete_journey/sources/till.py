"""The till: every line of every basket, by loyalty card."""

from foretell import Source

till = Source(
    name="till",
    files="till/*.parquet",
    role="order_line",
    event_at="sold_at",
    timezone="America/New_York",
    times_in="UTC",
    currency="USD",
    identifiers={"loyalty_card": "card_no"},
    columns={
        "order_id": "basket_id",
        "amount": "sales_value",
        "quantity": "quantity",
        "discount": "retail_disc + coupon_disc",
        "product_id": "product_id",
        "category": "category",
        "brand": "brand",
    },
)
