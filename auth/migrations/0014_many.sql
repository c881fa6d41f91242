-- A search through very many people walks along an order of the list, and finds all that it needs in the index.
create index users_looked on users (address, sought);
-- Who has a role, by name; by address there is one.
create index users_role_name on users (role, sought);

-- Mostly few are.
create index users_disabled on users (disabled_at) where disabled_at is not null;
create index users_new on users (created_at) where activated_at is null and disabled_at is null;

-- The one index of what each sign-in changes, so that PostgreSQL writes all of them then; what that costs is in
-- docs/performance.md. Without it the list in the order of the last sign-in would read a million people for each page.
create index users_seen on users (coalesce(signed_in_at, 0), id);

-- How many people there were when they were last counted, of each kind. Who is one of very many is not counted
-- anew for each look at the list.
create table counted (
    role   text not null,
    state  text not null,                   -- as in the list's filter
    recent bigint not null,                 -- 1: signed in during the week before
    n      bigint not null,
    at     bigint not null,
    primary key (role, state, recent)
) without rowid;

-- The same as in `daily`, as JSON, of ten minutes that are over and of a day that is not.
create table lately (
    span    bigint primary key,             -- of ten minutes, since 1970
    figures text not null
);
