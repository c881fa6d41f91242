-- The kind of device that asked, in words of ours (agents.py); its mail says so. '' for one we don't know.
alter table challenges add column asked_by text not null default '';
