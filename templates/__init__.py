"""Everything a person reads. Data in; FastTags, HTML or text out. No decisions, no database, no HTTP."""

from fasthtml.common import P

from templates import account as own_account
from templates import admin, audit, members, organisations, pages
from templates import person as one_person
from templates.emails import CodeLetter, InvitationLetter, MoveLetter, NoticeLetter
from templates.importing import import_done, import_page, import_preview
from templates.invitations import invitations_page, own_invitations
from templates.layout import STATIC, Layout, assets, head
from templates.mail import mail_page, mail_sure
from templates.mailbox import MailboxPages, road
from templates.overview import overview
from templates.roles import roles_page
from templates.words import REFUSALS, told

MAIL_OFF = "Mail is switched off on this server, so no code will arrive. Ask whoever runs it."


class Templates(Layout):
    """What sign-in asks for, in one app's name. Give it to EmailAuth; use `page` for pages of your own."""

    def __init__(
        self,
        app_name,
        base_url,
        code_seconds=900,
        code_in_subject=False,
        mail="smtp",
        origin_bound=False,
    ):
        super().__init__(app_name)
        self.code_letter = CodeLetter(
            app_name, base_url, code_seconds, code_in_subject, origin_bound
        )
        self.move_letter = MoveLetter(app_name, base_url, code_seconds)
        self.notice_letter = NoticeLetter(app_name, base_url)
        self.invitation_letter = InvitationLetter(app_name, base_url)
        self._off = MAIL_OFF if mail == "none" else ""
        self._road = road() if mail == "console" else ""
        self.mailbox = MailboxPages(self)

    def login(self, next_path, address="", refused=None, done=""):
        return pages.login(next_path, address, refused, self._off or self._road, done)

    def code(self, pending, refused=None, notice=""):
        drawn = pages.code(pending, refused, notice, self.app_name, self._off)
        return (P(self._road, cls="alert note"), drawn) if self._road else drawn

    def home(self, caller):
        return self.page("Welcome", *pages.home(caller, self.app_name), caller=caller)

    def dashboard(self, caller):
        return self.page("Dashboard", pages.dashboard(caller), caller=caller)

    def problem(self, what, request_id="", caller=None):
        """A whole page, since it stands for one."""
        content = pages.problem(what, request_id)
        return self.page(pages.words_of(what)[0], *content, caller=caller, width="door")

    def told(self, reason, facts):
        """What a program is told: of a refusal, or ("asked") of a code that is on its way."""
        return self._off if self._off and reason == "asked" else told(reason, facts)

    def sorry(self, what):
        return self.fragment("", pages.sorry(what))

    account = staticmethod(own_account.account)
    delete_sure = staticmethod(own_account.delete_sure)
    leave_sure = staticmethod(own_account.leave_sure)
    undo = staticmethod(own_account.undo)
    undone = staticmethod(own_account.undone)
    confirm = staticmethod(own_account.confirm)
    link = staticmethod(pages.link)
    elsewhere = staticmethod(pages.elsewhere)
    again = staticmethod(pages.again)
    code_over = staticmethod(pages.code_over)
    no_access = staticmethod(pages.no_access)
    people = staticmethod(admin.people)
    roles_page = staticmethod(roles_page)
    person = staticmethod(one_person.person)
    person_sure = staticmethod(one_person.person_sure)
    tenants_page = staticmethod(organisations.tenants_page)
    tenant_page = staticmethod(members.tenant_page)
    member_page = staticmethod(members.member_page)
    member_sure = staticmethod(members.member_sure)
    tenant_sure = staticmethod(organisations.tenant_sure)
    invitations_page = staticmethod(invitations_page)
    own_invitations = staticmethod(own_invitations)
    import_page = staticmethod(import_page)
    import_preview = staticmethod(import_preview)
    import_done = staticmethod(import_done)
    overview = staticmethod(overview)
    audit_page = staticmethod(audit.audit_page)
    audit_csv = staticmethod(audit.audit_csv)
    mail_page = staticmethod(mail_page)
    mail_sure = staticmethod(mail_sure)


__all__ = ["REFUSALS", "STATIC", "Templates", "assets", "head"]
