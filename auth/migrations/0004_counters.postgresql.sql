-- How often: one row for each (limit, window, subject), all three in the key, an HMAC.
create table counters (
    key     text primary key,
    n       bigint not null,
    most    bigint not null,                -- the limit when it was last counted
    ends_at bigint not null
);
create index counters_end on counters (ends_at);
