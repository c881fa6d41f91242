-- The organisation that an event is about, for its own admins. '' for most.
alter table events add column tenant text not null default '';
create index events_tenant on events (tenant, id) where tenant <> '';
-- What is rare is found by its kind; what each sign-in writes pays for no index.
create index events_rare on events (kind, id) where kind not in
    ('authn_code_requested', 'authn_login_success', 'authn_login_fail', 'authn_logout');
create index memberships_role on memberships (role);
