"""Files of images: what they say before they are decoded, and what is put right around it. image.py decodes them."""
