-- The second wall between organisations; the first is auth/scope.py. While a transaction works inside one of
-- them, which it says in the setting vestibule.tenant, no statement sees or changes rows of others, whatever it
-- forgot to ask for. Elsewhere the setting is empty, and all rows are there.
--
-- `force`: the owner of a table, who runs the app, would pass otherwise. A superuser passes in any case, and so
-- does a role with bypassrls: see docs/scale-out.md.
alter table tenants enable row level security, force row level security;
create policy inside_one_tenant on tenants
    using (coalesce(current_setting('vestibule.tenant', true), '') in ('', id));

alter table memberships enable row level security, force row level security;
create policy inside_one_tenant on memberships
    using (coalesce(current_setting('vestibule.tenant', true), '') in ('', tenant_id));

alter table invitations enable row level security, force row level security;
create policy inside_one_tenant on invitations
    using (coalesce(current_setting('vestibule.tenant', true), '') in ('', tenant_id));

alter table events enable row level security, force row level security;
create policy inside_one_tenant on events
    using (coalesce(current_setting('vestibule.tenant', true), '') in ('', tenant));
