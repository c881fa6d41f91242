-- What the list of people is searched in and sorted by: name and address, folded. Kept by triggers, so that no
-- statement can forget it; stored, so that nothing is folded for each of 100,000 rows, and so that no index
-- needs a function that only this app's SQLite has.
alter table users add column sought text not null default '';
update users set sought = lower(name || ' ' || address);
create trigger users_sought_new after insert on users
begin
    update users set sought = lower(new.name || ' ' || new.address) where id = new.id;
end;
create trigger users_sought_changed after update of name, address on users
begin
    update users set sought = lower(new.name || ' ' || new.address) where id = new.id;
end;

-- The orders of the list. No sign-in writes what they hold; there is none for the last sign-in.
create index users_sought on users (sought);
create index users_added on users (created_at, id);
drop index users_role;
create index users_role on users (role, address);
