-- What the list of people is searched in and sorted by: name and address, folded. Kept by a trigger, so that no
-- statement can forget it; no generated column, which a backup could not be put back into.
alter table users add column sought text not null default '';
create function users_sought() returns trigger language plpgsql as $$
begin
    new.sought := lower(new.name || ' ' || new.address);
    return new;
end
$$;
create trigger users_sought before insert or update of name, address on users
    for each row execute function users_sought();
update users set name = name;

-- The orders of the list. No sign-in writes what they hold; there is none for the last sign-in.
create index users_sought on users (sought);
create index users_added on users (created_at, id);
drop index users_role;
create index users_role on users (role, address);
