-- Who is asked into an organisation: one person, by the address that they have then, once.
create table invitations (
    id         text primary key,
    tenant_id  text not null references tenants (id) on delete cascade,
    user_id    text not null references users (id) on delete cascade,
    address    text not null,               -- who has changed theirs since is not meant
    role       text not null default 'user' references roles (name) on delete set default,
    invited_by text not null default '',    -- user id, or '' for the command line
    created_at bigint not null,
    expires_at bigint not null,
    state      text not null default 'open' -- open, accepted, declined, withdrawn
) without rowid;
create unique index invitations_open on invitations (tenant_id, user_id) where state = 'open';
create index invitations_tenant on invitations (tenant_id, created_at);
create index invitations_user on invitations (user_id);

-- Whoever is in, by whatever way, needs none any more. Left open it would let them back in after they were
-- taken out.
create trigger memberships_end_invitations after insert on memberships
begin
    update invitations set state = 'accepted'
     where tenant_id = new.tenant_id and user_id = new.user_id and state = 'open';
end;
