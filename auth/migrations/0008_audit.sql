-- The organisation that an event is about, for its own admins. '' for most.
alter table events add column tenant text not null default '';
-- How long a sign-in took, from asking to being in.
alter table events add column seconds bigint not null default 0;
create index events_tenant on events (tenant, id) where tenant <> '';
-- What is rare is found by its kind; what each sign-in writes pays for no index.
create index events_rare on events (kind, id) where kind not in
    ('authn_code_requested', 'authn_login_success', 'authn_login_fail', 'authn_logout');
-- What happened on a day, once it can't change any more: nobody counts a million events for a chart.
create table daily (
    day  bigint not null,                       -- since 1970, UTC
    what text not null,
    n    bigint not null,
    primary key (day, what)
) without rowid;

create index memberships_role on memberships (role);
