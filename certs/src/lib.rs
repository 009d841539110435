//! Keys, certificate authorities, issuing templates, CMS and sealing.
