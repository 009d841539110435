//! `AdditionalContext` of a request (MS-MDE2 3.4.4.1.1): what the machine says about itself.

use super::xml::{Element, Writing};
use super::{Error, names};

const MESSAGE: &str = "AdditionalContext";
/// Items of one request. Real ones have about twenty; `MAC` once for each network interface.
const MAX_ITEMS: usize = 256;
/// The longest name, in bytes.
const MAX_NAME: usize = 128;
/// The longest value, in bytes. Attestation claims have about 1,700.
const MAX_VALUE: usize = 32 * 1024;
/// The longest identifier, in bytes.
const MAX_IDENTIFIER: usize = 128;

/// Where the identity belongs on the machine: `EnrollmentType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnrollmentType {
    /// A person's enrollment: the certificate goes to `My/User`.
    Full,
    /// The machine's own (Entra join): the certificate goes to `My/System`.
    Device,
}

/// The `DeviceID` or `HWDevID` of a machine: a claim, of letters, digits and `-_.{}` only.
///
/// `DeviceID` becomes `./DevInfo/DevId` of every session. `HWDevID` can collide on cloned machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceId(String);

impl DeviceId {
    /// Checks an identifier.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`].
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::BadIdentifier { field, reason };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if text.len() > MAX_IDENTIFIER {
            return Err(bad("it is too long"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.{}".contains(&byte)) {
            return Err(bad("it has characters other than letters, digits and -_.{}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As the machine wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The items in the machine's order, those that nobody knows too: an open set, kept for the inventory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    items: Vec<(String, String)>,
}

impl Context {
    /// Reads the items wherever they nest: Microsoft's samples leave some of them open.
    pub(super) fn decode(parent: &Element<'_>) -> Result<Self, Error> {
        let mut context = Self::default();
        let Some(list) = parent.child("AdditionalContext")? else {
            return Ok(context);
        };
        let mut waiting: Vec<Element<'_>> = list.children().collect();
        waiting.reverse();
        while let Some(element) = waiting.pop() {
            if element.name() != "ContextItem" {
                continue;
            }
            let name = element.attribute("Name").filter(|name| !name.is_empty());
            let name = name.ok_or(Error::Missing { message: MESSAGE, field: "Name" })?;
            context.add(name, element.value("Value")?.unwrap_or_default())?;
            let inner = waiting.len();
            waiting.extend(element.children());
            if let Some(inner) = waiting.get_mut(inner..) {
                inner.reverse();
            }
        }
        Ok(context)
    }

    pub(super) fn write(&self, xml: &mut Writing) {
        xml.open("ac:AdditionalContext", &[("xmlns", names::AUTHORIZATION)]);
        for (name, value) in &self.items {
            xml.open("ac:ContextItem", &[("Name", name)]).leaf("ac:Value", value).close();
        }
        xml.close();
    }

    /// Adds an item.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`], or [`Error::Bad`] when there are too many.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), Error> {
        if self.items.len() >= MAX_ITEMS {
            return Err(Error::Bad { message: MESSAGE, field: "number of items" });
        }
        if name.len() > MAX_NAME {
            return Err(Error::ValueTooLarge { field: "the name of a context item", limit: MAX_NAME });
        }
        if value.len() > MAX_VALUE {
            return Err(Error::ValueTooLarge { field: "a context item", limit: MAX_VALUE });
        }
        self.items.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The same with one more item, for simulated machines.
    ///
    /// # Errors
    /// As [`Context::add`].
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, Error> {
        self.add(name, value)?;
        Ok(self)
    }

    /// All items, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.items.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// All values of a name that are not empty.
    pub fn all<'c>(&'c self, name: &'c str) -> impl Iterator<Item = &'c str> {
        self.iter().filter(move |(item, value)| *item == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// The first value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(item, value)| *item == name && !value.is_empty()).map(|(_, value)| value)
    }

    /// A value that decides something: it may be repeated, but not contradicted.
    fn decisive(&self, name: &'static str) -> Result<Option<&str>, Error> {
        let first = self.get(name);
        if self.all(name).any(|value| Some(value) != first) {
            return Err(Error::Repeated { field: name });
        }
        Ok(first)
    }

    /// `EnrollmentType`; a machine that says nothing (Windows 8.1) means [`EnrollmentType::Full`].
    ///
    /// # Errors
    /// [`Error::Bad`] for another type, [`Error::Repeated`] for two.
    pub fn enrollment_type(&self) -> Result<EnrollmentType, Error> {
        match self.decisive("EnrollmentType")? {
            None => Ok(EnrollmentType::Full),
            Some(text) if text.eq_ignore_ascii_case("Full") => Ok(EnrollmentType::Full),
            Some(text) if text.eq_ignore_ascii_case("Device") => Ok(EnrollmentType::Device),
            Some(_) => Err(Error::Bad { message: MESSAGE, field: "EnrollmentType" }),
        }
    }

    /// `DeviceID`.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`], or [`Error::Repeated`] for two different ones.
    pub fn device_id(&self) -> Result<Option<DeviceId>, Error> {
        self.decisive("DeviceID")?.map(|text| DeviceId::parse("DeviceID", text)).transpose()
    }

    /// `HWDevID`.
    ///
    /// # Errors
    /// [`Error::BadIdentifier`], or [`Error::Repeated`] for two different ones.
    pub fn hw_dev_id(&self) -> Result<Option<DeviceId>, Error> {
        self.decisive("HWDevID")?.map(|text| DeviceId::parse("HWDevID", text)).transpose()
    }

    /// `DeviceType`, such as `CIMClient_Windows`.
    #[must_use]
    pub fn device_type(&self) -> Option<&str> {
        self.get("DeviceType")
    }

    /// `DeviceName`: the NetBIOS name.
    #[must_use]
    pub fn device_name(&self) -> Option<&str> {
        self.get("DeviceName")
    }

    /// `OSEdition`: the number of the edition (SKU), when it is one.
    #[must_use]
    pub fn os_edition(&self) -> Option<u32> {
        self.get("OSEdition")?.parse().ok()
    }

    /// `OSVersion`.
    #[must_use]
    pub fn os_version(&self) -> Option<&str> {
        self.get("OSVersion")
    }

    /// `ApplicationVersion`: Windows' version too.
    #[must_use]
    pub fn application_version(&self) -> Option<&str> {
        self.get("ApplicationVersion")
    }

    /// `Locale`, such as `en-US`.
    #[must_use]
    pub fn locale(&self) -> Option<&str> {
        self.get("Locale")
    }

    /// `Manufacturer`; newer machines only.
    #[must_use]
    pub fn manufacturer(&self) -> Option<&str> {
        self.get("Manufacturer")
    }

    /// `DeviceModel`; newer machines only.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.get("DeviceModel")
    }

    /// `SerialNumber`; newer machines only. The first session asks again.
    #[must_use]
    pub fn serial_number(&self) -> Option<&str> {
        self.get("SerialNumber")
    }

    /// `EnrollmentData`: the blob of our terms-of-use page.
    #[must_use]
    pub fn enrollment_data(&self) -> Option<&str> {
        self.get("EnrollmentData")
    }

    /// Every `MAC`, in the machine's order.
    pub fn macs(&self) -> impl Iterator<Item = &str> {
        self.all("MAC")
    }

    /// Every `IMEI`, in the machine's order.
    pub fn imeis(&self) -> impl Iterator<Item = &str> {
        self.all("IMEI")
    }

    /// `TargetedUserLoggedIn`.
    #[must_use]
    pub fn targeted_user_logged_in(&self) -> Option<bool> {
        self.boolean("TargetedUserLoggedIn")
    }

    /// `UXInitiated`: a person began this.
    #[must_use]
    pub fn ux_initiated(&self) -> Option<bool> {
        self.boolean("UXInitiated")
    }

    /// `NotInOobe`: false while a new machine is being set up.
    #[must_use]
    pub fn not_in_oobe(&self) -> Option<bool> {
        self.boolean("NotInOobe")
    }

    fn boolean(&self, name: &str) -> Option<bool> {
        let text = self.get(name)?;
        if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        }
    }
}
