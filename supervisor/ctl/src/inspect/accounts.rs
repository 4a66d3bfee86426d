//! Users and groups by their names, as `/etc/passwd` and `/etc/group` have them: where the supervisor looks, too.

use std::fs;

use yakiros_core::component::Account;

/// What the two files say.
#[derive(Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

/// A user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub id: u32,
    /// Number of its group: of who is given by a number the same, of who is given by a name what the file says.
    pub group: Option<u32>,
}

impl Accounts {
    /// Read them; what cannot be read has nobody in it.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self { passwd: text("/etc/passwd"), group: text("/etc/group") }
    }

    /// A user, if there is one of this name; of a number always.
    pub fn user(&self, account: &Account) -> Option<User> {
        let number = |field: Option<&&str>| field.and_then(|field| field.parse().ok());
        match account {
            Account::Id(id) => Some(User { id: *id, group: Some(*id) }),
            Account::Name(name) => {
                let found = line_of(&self.passwd, name)?;
                Some(User { id: number(found.get(2))?, group: number(found.get(3)) })
            }
        }
    }

    /// The number of a group.
    pub fn group(&self, account: &Account) -> Option<u32> {
        match account {
            Account::Id(id) => Some(*id),
            Account::Name(name) => line_of(&self.group, name)?.get(2)?.parse().ok(),
        }
    }
}

/// The fields of the line that begins with a name.
fn line_of<'t>(text: &'t str, name: &str) -> Option<Vec<&'t str>> {
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.first() == Some(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_numbers_and_users_have_a_group() {
        let accounts = Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nbad line\nweb:x:33:34::/srv:/bin/false\n".to_owned(),
            group: "root:x:0:\nlog:x:4:web\n".to_owned(),
        };
        let name = |name: &str| Account::Name(name.to_owned());
        assert_eq!(accounts.user(&name("web")), Some(User { id: 33, group: Some(34) }));
        assert_eq!(accounts.user(&Account::Id(33)), Some(User { id: 33, group: Some(33) }));
        assert_eq!((accounts.user(&name("nobody")), accounts.group(&name("nobody"))), (None, None));
        assert_eq!((accounts.group(&name("log")), accounts.group(&Account::Id(9))), (Some(4), Some(9)));
    }
}
